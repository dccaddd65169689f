"""Whether a program is a worker: a system of its own, work for it, and all that can happen between the two.

::

    run      one case after the other
    cases    what is expected of a worker, each in a calm or a rough world
    stage    the system: tree and store in a folder, front ends that can be killed, the program itself
    relay    the address that the program knows: it passes calls on, loses, doubles and delays them, and notes what it saw

Of the program only this is taken for granted: it claims tasks of one kind by the ticket gateway, and runs scripts on this machine.
"""
