"""What a hospital allows and what leaves it: policy, approvals, both ledgers and the gate's process."""
