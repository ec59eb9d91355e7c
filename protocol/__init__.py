"""What hub and site agree on: study specification, messages, tensors, accounting, metrics, signatures."""
