"""How fast training input is made, stage by stage, and beside MONAI and batchgeneratorsv2."""
