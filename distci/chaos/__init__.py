"""Proof of the kill-anything guarantee on a machine or cluster of one's own.

A fixed set of builds is run twice with the same seed: in peace, then while workers, links and servers are killed, stopped and cut off. Every
process writes down what it commits and stores (:mod:`distci.recording`); when all is over, that history, the final tree and the
final store are held against what is promised::

    seed -> schedule            what goes wrong when
         -> reference           jobs, repository, triggers
    stage: workers + faults     one performance -> history, tree, outputs
    checker (pure)              -> violations, each with the calls that show it

Schedule and checker do nothing but compute, so that both can be tested and repeated by themselves.
"""
