"""From predictions to what a physician reads: diagnosis, volumes, findings, pictures, reports."""
