"""Celery at a hospital: a queue of job ids, leases with fencing tokens, and a fresh child process for each job."""
