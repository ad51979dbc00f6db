-- The server's clock, epoch microseconds.
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
