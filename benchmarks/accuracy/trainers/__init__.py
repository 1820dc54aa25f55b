"""One training as processes: this project's trainer or Ultralytics' own, then the same validation for both."""
