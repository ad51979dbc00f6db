-- Whether the tables that the sink writes are there.
SELECT FROM payments, payment_events, dead_letters, sink_offsets LIMIT 0
