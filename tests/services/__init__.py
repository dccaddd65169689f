"""The real services that tests run against, started when the first test asks and shared by all test processes of a run."""
