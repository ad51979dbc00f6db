"""The contract: records, identity, money, wire format and topics. Imports nothing of ours and no framework."""
