"""The refusal responder: what answers a connection that was refused, in words that its client prints.

A child process with no rights speaks to the clients (`process.py`); the daemon tells it what to say, and
signs (`daemon/responding.py`). docs/refusals.md says what each client prints.
"""
