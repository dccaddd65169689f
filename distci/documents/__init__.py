"""Documents to model and back: all that is written as JSON is read here, and nothing is believed before it is checked.

::

    jobs          a job document becomes a Job, or all that is wrong with it is told
    validation    what no schema can say of a job
    written       a document as somebody wrote it, JSON or YAML, and where in the text each part of it stands
    foreign       a file of another system, read nearly as strictly
    mistakes      what is allowed in a job, and surely a mistake
    printed       a job as YAML for people
    schema        what the schemas find wrong, in words and with its place
    stored        plans, triggers, outcomes, states: what DistCI writes for itself
    strict_json   JSON and its fields

Each knows those below it alone.
"""
