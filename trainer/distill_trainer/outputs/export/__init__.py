"""The student in other formats."""
