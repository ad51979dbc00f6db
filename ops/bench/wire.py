"""As much of HTTP/1.1 as a load generator needs: whole requests out, statuses of whole answers in. Pure."""

from __future__ import annotations

from typing import Final

_BODY: Final = (
    b'{"amount":"12.50","currency":"USD","payment_method":"pm_approve",'
    b'"customer_id":"customer-1","description":"a payment of the bench"}'
)
_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


def request(path: str, key: str, api_key: str) -> bytes:
    """A create under this idempotency key, of the API key's merchant."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {api_key}\r\nIdempotency-Key: {key}\r\nContent-Length: {len(_BODY)}\r\n\r\n"
    )
    return head.encode() + _BODY


class Answers:
    """Cuts a stream of bytes into answers, whose length has to be in their head."""

    def __init__(self) -> None:
        self._bytes = b""

    def feed(self, data: bytes) -> list[int]:
        """The statuses of the answers that are whole now. Raises ValueError for one without a length."""
        self._bytes += data
        found: list[int] = []
        while (head_end := self._bytes.find(_END)) >= 0:
            head = self._bytes[:head_end].lower()
            at = head.find(_LENGTH)
            if at < 0:
                raise ValueError("an answer without Content-Length")
            length = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0])
            whole = head_end + len(_END) + length
            if len(self._bytes) < whole:
                break
            found.append(int(head[9:12]))
            self._bytes = self._bytes[whole:]
        return found
