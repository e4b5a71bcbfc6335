import ws from 'k6/ws';
export const options = { scenarios: { hold: { executor: 'per-vu-iterations', vus: 43, iterations: 1, maxDuration: '60s' } } };
export default function () {
  ws.connect('ws://127.0.0.1:18080/', {}, (socket) => {
    socket.on('open', () => socket.send('hello'));
    socket.setTimeout(() => socket.close(), 5000);
  });
}
