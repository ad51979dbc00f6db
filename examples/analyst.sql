-- Questions of an analyst to the view payment_status: amounts in major units, durations in seconds. Read-only.

-- turnover: what came in, by day and currency
SELECT date_trunc('day', finished_at)::date AS day, currency, count(*) AS payments, sum(amount) AS turnover
FROM payment_status WHERE state = 'COMPLETED' GROUP BY 1, 2 ORDER BY 1, 2;

-- refusals: why payments failed, the most frequent reason first
SELECT reason, count(*) AS payments, round(100.0 * count(*) / sum(count(*)) OVER (), 1) AS percent
FROM payment_status WHERE state = 'FAILED' GROUP BY reason ORDER BY payments DESC, reason;

-- waiting: how long payments stood in line for their lane, and how long the provider took
SELECT lane, count(*) AS payments,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY queue_s) AS queue_p50_s,
       percentile_cont(0.95) WITHIN GROUP (ORDER BY queue_s) AS queue_p95_s,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY processing_s) AS processing_p50_s
FROM payment_status WHERE is_final GROUP BY lane ORDER BY lane;

-- backlog: what is not final yet, by state
SELECT state, count(*) AS payments, max(age_s) AS oldest_s
FROM payment_status WHERE NOT is_final GROUP BY state ORDER BY state;

-- retries: payments that took more than one call, the most first
SELECT payment_id, state, attempts, reason FROM payment_status WHERE attempts > 1 ORDER BY attempts DESC, payment_id LIMIT 10;
