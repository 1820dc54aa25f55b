"""The decision of a pass: pure, and made of the policies."""
