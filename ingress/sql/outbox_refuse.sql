-- Set a command aside that Kafka refuses for ever. $1 id, $2 why.
UPDATE outbox SET refused = $2 WHERE id = $1
