"""Order reserves, charges, has large orders approved by a person, and ships; or undoes what was done as soon as one refuses."""

import json
import os
import urllib.error
import urllib.request

import step


def outside(action, order, key):
    """Ask a department, which leaves out doubles by the key."""
    url = f"{os.environ['SHOP_URL']}/{action}/{order['id']}"
    request = urllib.request.Request(url, json.dumps(order).encode(), {"Idempotency-Key": key}, method="POST")
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.read().decode()
    except urllib.error.HTTPError as refused:
        if refused.code < 500:
            raise step.Final(refused.read().decode()) from None
        raise


def order(call):
    wanted = call.json()
    saga = call.saga()
    try:
        for action, undo in [("reserve", "release"), ("charge", "refund")]:
            key = call.key()
            call.step(action, lambda: outside(action, wanted, key), attempts=3)
            saga.on_undo(undo, lambda undo=undo, key=key: outside(undo, wanted, key + "/undo"))
        if wanted["cents"] > 10_000 and call.wait_event("approval", timeout=7 * 86400) != "yes":
            raise step.StepError("not approved")
        key = call.key()
        parcel = call.step("ship", lambda: outside("ship", wanted, key), attempts=3)
    except (step.StepError, TimeoutError) as problem:
        saga.undo(attempts=3)
        return {"id": wanted["id"], "state": "cancelled", "why": str(problem)}
    return {"id": wanted["id"], "state": "shipped", "parcel": parcel}


if __name__ == "__main__":
    step.serve(order)
