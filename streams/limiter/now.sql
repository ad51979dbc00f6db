-- The server's clock, epoch microseconds, and whether slots may be reserved here. Fails where the migration is missing.
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
       has_function_privilege('limiter_reserve(text, integer, bigint, bigint)', 'EXECUTE')
