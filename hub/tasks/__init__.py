"""The hub's Celery application and its one task: the close of a round."""
