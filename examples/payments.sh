#!/usr/bin/env bash
# A payment with curl: create, repeat, read, cancel, list. Stops at the first answer that is not as expected.
set -euo pipefail
: "${KIFIYA_URL:?the address of the gateway}" "${KIFIYA_API_KEY:?a key with payments:write and payments:read}"

key="order-$(date +%s)-$$"
body='{"amount": "12.50", "currency": "USD", "payment_method": "pm_approve", "metadata": {"example": "curl"}}'
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

# call EXPECTED-STATUS METHOD PATH [curl's arguments]: the answer's body goes to $answer.
call() {
  local expected=$1 method=$2 path=$3 status
  shift 3
  status=$(curl --silent --show-error --max-time 10 --output "$answer" --write-out '%{http_code}' \
    --request "$method" --header "Authorization: Bearer $KIFIYA_API_KEY" "$@" "$KIFIYA_URL$path")
  printf '%s %s -> %s\n' "$method" "$path" "$status"
  [ "$status" = "$expected" ] || { echo "expected $expected:" >&2; cat "$answer" >&2; exit 1; }
}

# field NAME: a string field of the last answer.
field() { sed -E "s/.*\"$1\": *\"([^\"]*)\".*/\1/" "$answer"; }

create() { call "$1" POST /v1/payments --header "Idempotency-Key: $key" --header 'Content-Type: application/json' --data "$2"; }

create 201 "$body"
id=$(field payment_id)
create 409 "$body"                      # the same again: the payment as it stands, nothing is charged twice
[ "$(field payment_id)" = "$id" ]
create 422 "${body/12.50/99.00}"        # the key names this payment for ever, and no other one

until call 200 GET "/v1/payments/$id" && [ "$(field status)" = COMPLETED ]; do
  [ "$(field status)" != FAILED ]
  sleep 0.5
done
call 200 GET "/v1/payments/$id/events"  # each change, each call to the provider, and where in Kafka it stands
call 409 POST "/v1/payments/$id/cancel" # too late: it is COMPLETED
call 200 GET "/v1/payments?metadata=example=curl&limit=5"
echo "payment $id is COMPLETED"
