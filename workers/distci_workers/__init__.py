"""The kinds of worker that come with DistCI, a page each."""
