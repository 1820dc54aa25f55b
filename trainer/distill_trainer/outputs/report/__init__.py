"""report.html and report.json, which compare student, teacher and baseline."""
