-- Commands that the ingress accepted while Kafka was away; only the ingress writes here.

CREATE TABLE outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payment_id uuid NOT NULL,
    value      bytea NOT NULL,
    headers    jsonb NOT NULL,
    refused    text,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
CREATE INDEX outbox_by_payment ON outbox (payment_id, id);
CREATE INDEX outbox_refused ON outbox (id) WHERE refused IS NOT NULL;
COMMENT ON TABLE outbox IS 'Accepted commands that wait for Kafka, published and deleted in the order of their ids.';
COMMENT ON COLUMN outbox.id IS 'Place in line; grows in the order of commits, as outbox_level is locked first.';
COMMENT ON COLUMN outbox.payment_id IS 'The payment; the record''s key.';
COMMENT ON COLUMN outbox.value IS 'The record''s value, as it goes to payments.commands.';
COMMENT ON COLUMN outbox.headers IS 'The record''s headers: pairs of name and ASCII text.';
COMMENT ON COLUMN outbox.refused IS 'Why Kafka refuses this record for ever: it stays for a person. Null: it waits.';
COMMENT ON COLUMN outbox.written_at IS 'When it was accepted.';

CREATE TABLE outbox_level (
    one   boolean PRIMARY KEY DEFAULT true CHECK (one),
    rows  bigint NOT NULL CHECK (rows >= 0),
    bytes bigint NOT NULL CHECK (bytes >= 0)
) WITH (fillfactor = 10);
INSERT INTO outbox_level (rows, bytes) VALUES (0, 0);
COMMENT ON TABLE outbox_level IS 'How full the outbox is, changed with its rows: its bound costs no count.';
COMMENT ON COLUMN outbox_level.one IS 'There is one row.';
COMMENT ON COLUMN outbox_level.rows IS 'Rows in the outbox.';
COMMENT ON COLUMN outbox_level.bytes IS 'Bytes of their values.';

-- Of all merchants' commands, for the ingress's outbox and relay alone: what answers merchants has no right to them.
ALTER TABLE outbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE outbox FORCE ROW LEVEL SECURITY;
CREATE POLICY relays_all ON outbox TO kifiya_outbox, kifiya_ops USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE, DELETE ON outbox TO kifiya_outbox, kifiya_ops;
GRANT SELECT, UPDATE ON outbox_level TO kifiya_outbox, kifiya_ops;
