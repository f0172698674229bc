const http = require('node:http');

async function state(call, method, path, body) {
  const reply = await fetch(`http://127.0.0.1:${process.env.DAPR_HTTP_PORT}/v1.0/state/shared${path}`, {
    method, body: body && JSON.stringify(body),
    headers: { 'Content-Type': 'application/json', 'Quipu-Call-Id': call, 'dapr-api-token': process.env.DAPR_API_TOKEN },
  });
  const text = await reply.text();
  if (!reply.ok) throw new Error(text);
  return text;
}

http.createServer(async (request, response) => {
  let text = '';
  for await (const part of request) text += part;
  const call = request.headers['quipu-call-id'];
  try {
    const letters = JSON.parse((await state(call, 'GET', '/letters')) || '[]');
    letters.push(JSON.parse(text).data.amount);
    await state(call, 'POST', '', [{ key: 'letters', value: letters }]);
  } catch (problem) {
    response.statusCode = 500;
  }
  response.end();
}).listen(process.env.QUIPU_SOCKET);
