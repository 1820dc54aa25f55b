"""What the student is asked to imitate, and how that is measured."""
