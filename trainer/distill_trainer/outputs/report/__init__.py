"""report.html and report.json: student, teacher and baseline compared."""
