"""The real services that tests run against, started when the first test asks and shared by all test processes of a run."""

STORES = ("directory", "s3", "gateway", "rados")
"""The kinds of object stores: ``gateway`` is S3 by Ceph's RADOS gateway, ``s3`` by moto."""
