"""Whether this hospital is ready for a study, found out here and before anybody approves it; nothing of it leaves."""
