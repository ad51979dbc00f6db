-- What the projection knows of a payment. $1: payment id.
SELECT state, version, fingerprint FROM payments WHERE payment_id = $1::uuid
