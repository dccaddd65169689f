"""The front end: DistCI over HTTP. Stateless, so that any number of them may run behind any balancer and die at any moment.

::

    serving      runs it: a socket, an event loop, an end within two seconds
    app          create(system): every endpoint behind its path
    dispatch     one request: who asks, may they, is it well formed; then the endpoint's own function, in a thread
    access       who asks and what they may do, by distci.access
    site         where people find it, and its cookies
    guard        what keeps pages of others out
    endpoint     what an endpoint is: method, path, parameters, body, right, answers, and the function
    jobs builds logs artifacts tickets workers cluster why login health metrics
                 the endpoints themselves, a group a module
    openapi      the document that is made of the endpoints and of schemas/api.json
    problems     every error as RFC 9457 has it

An endpoint's function is synchronous, as the library is. What must not cost a thread (a stream that stays open) is a coroutine instead.
"""
