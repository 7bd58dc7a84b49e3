"""Redis as an accelerator: bounded time-outs and a circuit breaker, so that its absence means slower, never wrong."""
