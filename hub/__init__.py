"""The hub: proposes studies to hospitals, sums their updates, keeps versions, lineage and the audit log."""
