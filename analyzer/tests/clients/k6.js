import ws from 'k6/ws';
export const options = { scenarios: { ramp: { executor: 'per-vu-iterations', vus: 6, iterations: 1, maxDuration: '20s' } } };
export default function () {
  const port = __VU > 5 ? 18639 : 18631;
  ws.connect(`ws://127.0.0.1:${port}/`, {}, (socket) => {
    socket.on('open', () => { socket.send('hello'); socket.ping(); });
    socket.setTimeout(() => socket.close(), 500);
  });
}
