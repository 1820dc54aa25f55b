"""Jobs that are disturbed at random end bitwise equal to the one that nothing befell."""
