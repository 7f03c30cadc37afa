"""What goes wrong around a server, on loopback, bounded in count and time.

- `test_clients_that_go`: rows of clients that go are dropped before they are scored, and their neighbors are answered.
- `test_slow_clients`: headers, bodies and readers have a deadline each, and others are as fast as before.
- `test_too_much`: bytes, rows, levels and packed bytes are refused without reading all; lies about lengths.
- `test_bad_bodies`: bad text and bad JSON are refused or scored as alone, and never a fault of the server.
- `test_engines`: scores that are no numbers, poisoned rows and memory errors fail alone; an engine that stalls or dies.
- `test_overload`: more than the queue takes is refused at once, nothing is answered wrong, and then all is well.
- `test_signals`: what was accepted is answered; clients that try again lose nothing.
- `test_http_edges`: HTTP at its edges; one request is never read as two.
- `test_keys_everywhere`: no path scores or names a model without a key; pages of other origins.
- `test_machines`: a bad network, too many threads, too little memory.
- `test_description`: what the API's description allows, and what it does not.

A server writes no results and has no cache on disk: jobs that are killed, full disks and torn files are faults of
`prefrank score`, and tested with it.
"""
