"""From native exams to co-registered, skull-stripped volumes on an atlas grid, and back."""
