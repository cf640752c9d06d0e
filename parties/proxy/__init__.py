"""`hush proxy`: an OpenAI-compatible endpoint on the user's own machine.

It tokenises and shares here, so that a client which only knows OpenAI's interface uses private inference by changing
its base URL. Whoever runs the proxy sees prompts and answers: it belongs to the user, and binds to loopback.

Only `app`, `endpoints`, `guard`, `wire`, `server` and `template` need the extra `proxy`; `hush chat` uses the rest.
"""
