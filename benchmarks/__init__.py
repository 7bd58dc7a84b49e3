"""
Benchmarks: every figure is a ratio measured side by side in one run. `python -m benchmarks` runs them.

The processes: `stage` starts and watches the servers, `settings` and `site` are what the web server serves, `client` sends requests, `workers`
write without HTTP (`direct`: the product's services; `floors`: what they are compared with), `naive` is what a team would write first.
The rows that must be there before: `population`, `cloning`. The measuring: `loads` makes paths, `scenarios` says what is compared with what
(`closing` and `growth` have databases of their own), `rounds` measures in turn, `table` prints, and `run` puts it all
together.
"""
