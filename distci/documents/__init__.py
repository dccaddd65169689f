"""Documents to model and back: all that is written as JSON is read here, and nothing is believed before it is checked.

::

    jobs          a job document becomes a Job, or all that is wrong with it is told
    validation    what no schema can say of a job
    written       a document as somebody wrote it, JSON or YAML, and where in the text each part of it stands
    schema        what the schemas find wrong, in words and with its place
    stored        plans, triggers, outcomes, states: what DistCI writes for itself
    strict_json   JSON and its fields

Each knows those below it alone.
"""
