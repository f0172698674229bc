// Order reserves, charges, has large orders approved by a person, and ships; or undoes what was done as soon as one refuses.

import { type Call, Final, StepError, Timeout, serve } from "./step.ts";

interface Order {
  id: string;
  cents: number;
}

/** Ask a department, which leaves out doubles by the key. */
async function outside(action: string, order: Order, key: string): Promise<string> {
  const reply = await fetch(`${process.env.SHOP_URL}/${action}/${order.id}`, { method: "POST", headers: { "Idempotency-Key": key }, body: JSON.stringify(order) });
  const text = await reply.text();
  if (reply.status >= 400 && reply.status < 500) throw new Final(text);
  if (!reply.ok) throw new Error(text);
  return text;
}

async function order(call: Call) {
  const wanted: Order = call.json();
  const saga = call.saga();
  try {
    for (const [action, undo] of [["reserve", "release"], ["charge", "refund"]]) {
      const key = call.key();
      await call.step(action, () => outside(action, wanted, key), { attempts: 3 });
      saga.onUndo(undo, () => outside(undo, wanted, key + "/undo"));
    }
    if (wanted.cents > 10_000 && (await call.waitEvent("approval", 7 * 86_400_000)) !== "yes") throw new StepError("not approved");
    const key = call.key();
    const parcel = await call.step("ship", () => outside("ship", wanted, key), { attempts: 3 });
    return { id: wanted.id, state: "shipped", parcel };
  } catch (problem) {
    if (!(problem instanceof StepError || problem instanceof Timeout)) throw problem;
    await saga.undo({ attempts: 3 });
    return { id: wanted.id, state: "cancelled", why: problem.message };
  }
}

serve(order);
