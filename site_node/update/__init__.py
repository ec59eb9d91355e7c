"""From weights to what is handed over: the steps of an update, listed in order."""
