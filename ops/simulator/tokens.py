"""The sandbox: what each magic ``payment_method`` makes the simulator do."""

from __future__ import annotations

from typing import Final

TOKENS: Final = {
    "pm_approve": "approved",
    "pm_decline": "declined, insufficient_funds",
    "pm_503_twice": "503 twice, nothing charged, then approved",
    "pm_500": "500 always, nothing charged",
    "pm_500_stored": "charged, but every answer to that key is the same stored 500; a status call tells the truth",
    "pm_429": "429 once with Retry-After 1, then approved",
    "pm_timeout_charged": "charged, but the first answer never comes",
    "pm_timeout_not_charged": "not charged, and the first answer never comes; approved when asked again",
    "pm_late": "the first answer never comes, and the charge lands two seconds later, asked again or not",
    "pm_slow_5s": "approved after five seconds",
    "pm_garbage": "charged, but the answer is not JSON; a status call tells the truth",
    "pm_reset": "charged, but the connection is reset before the answer",
    "pm_huge": "charged, but the answer is 100 MB of nothing",
    "pm_mismatch": "charged, but the answer names another amount; a status call tells the truth",
}
"""Any other token is declined with reason ``unknown_payment_method``."""
