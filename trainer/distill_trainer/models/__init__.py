"""Student and teacher: finding, loading, checking and building them."""
