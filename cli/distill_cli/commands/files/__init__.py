"""Commands that fetch files of a job."""
