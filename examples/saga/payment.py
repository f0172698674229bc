"""Payment takes the price of an order from the customer's account, and gives it back.

The account is ours. If it is a bank's, the money moves outside of the platform, where a thing can happen twice: then
this step is one of its own, with a key that the bank leaves out doubles by, as in the example shop.
"""

import app
import saga


def charge(order):
    account = "account/" + order["customer"]
    balance = app.get(account, 0)
    if balance < order["cents"]:
        return f"{balance} cents in the account"
    app.put(account, balance - order["cents"])


def refund(order):
    account = "account/" + order["customer"]
    app.put(account, app.get(account, 0) + order["cents"])


if __name__ == "__main__":
    saga.serve("payment", do=charge, undo=refund)
