"""The JSON Schemas (2020-12) that are the contract of every document DistCI reads or writes."""
