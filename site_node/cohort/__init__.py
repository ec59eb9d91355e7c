"""Which patients of this hospital take part in a study: index, labels, criteria, splits."""
