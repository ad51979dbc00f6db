-- Remember how far a partition is written. $1 topic, $2 partition, $3 offset of the next record.
INSERT INTO sink_offsets (topic, partition, next_offset) VALUES ($1, $2, $3)
ON CONFLICT (topic, partition) DO UPDATE
SET next_offset = greatest(sink_offsets.next_offset, excluded.next_offset), written_at = now()
