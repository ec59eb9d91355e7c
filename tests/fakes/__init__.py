"""Made-up counterparts that tests of every part share."""
