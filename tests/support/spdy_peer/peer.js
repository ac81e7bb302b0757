// spdy-transport on a socket: `peer.js serve` answers as the headers of a stream ask; `peer.js PORT SCENARIO` is a client.
'use strict'

const crypto = require('crypto')
const net = require('net')
const transport = require(process.env.SPDY_TRANSPORT)

const CHUNK = 1 << 16
const digest = () => crypto.createHash('sha256')

function connect (socket, isServer) {
  const connection = transport.connection.create(socket, { protocol: 'spdy', isServer, windowSize: 1 << 19 })
  connection.start(3.1)
  return connection
}

function pour (stream, size, done) {
  const hash = digest()
  const next = () => {
    while (size > 0) {
      const chunk = crypto.randomBytes(Math.min(CHUNK, size))
      size -= chunk.length
      hash.update(chunk)
      if (!stream.write(chunk)) return stream.once('drain', next)
    }
    stream.end()
    done(hash.digest('hex'))
  }
  next()
}

function drink (stream, done) {
  const hash = digest()
  let size = 0
  stream.on('data', (chunk) => { hash.update(chunk); size += chunk.length })
  stream.on('end', () => done(size, hash.digest('hex')))
}

function serve () {
  const server = net.createServer((socket) => {
    const connection = connect(socket, true)
    connection.on('error', () => {})
    connection.on('stream', (stream) => {
      stream.on('error', () => {})
      const size = Number(stream.headers.size)
      if (stream.headers.do === 'reset') return stream.respond(200, {}, () => stream.abort('INTERNAL_ERROR'))
      stream.respond(200, {})
      switch (stream.headers.do) {
        case 'echo': return stream.pipe(stream)
        case 'source': stream.resume(); return pour(stream, size, () => {})
        case 'sink': return drink(stream, (got, hash) => stream.end(got + ' ' + hash))
        case 'later': return stream.on('end', () => stream.end('after your end')).resume()
        case 'ping': return connection.ping(() => stream.end('pong'))
        case 'goaway': stream.end(); return connection.end()
        case 'stuck': break // neither reads nor writes
      }
    })
  })
  server.listen(0, '127.0.0.1', () => console.log(server.address().port))
}

function client (port, scenario) {
  const socket = net.connect(port, '127.0.0.1')
  socket.on('error', () => {})
  const connection = connect(socket, false)
  const open = (what, size, done) => connection.request(
    { method: 'POST', host: 'x', path: '/', headers: { do: what, size: String(size) } },
    (error, stream) => { if (error) throw error; stream.on('error', (e) => console.log('error ' + e.message)); done(stream) })
  const say = (what) => console.log(what)
  connection.on('error', (e) => say('connection ' + e.message))
  connection.on('close', () => say('closed'))

  const scenarios = {
    echo () {
      let left = 20
      for (let n = 0; n < 20; n++) {
        open('echo', 0, (stream) => {
          let sent
          drink(stream, (size, hash) => {
            say(size === 1 << 20 && hash === sent ? 'same' : 'differs')
            if (--left === 0) connection.end()
          })
          pour(stream, 1 << 20, (hash) => { sent = hash })
        })
      }
    },
    upload () {
      open('sink', 0, (stream) => {
        let sent
        stream.on('data', (text) => { say(String(text) === (64 << 20) + ' ' + sent ? 'same' : 'differs'); connection.end() })
        pour(stream, 64 << 20, (hash) => { sent = hash })
      })
    },
    download () {
      open('source', 64 << 20, (stream) => {
        stream.end()
        drink(stream, (size) => { say(size); connection.end() })
      })
    },
    halfClose () {
      open('later', 0, (stream) => {
        stream.end()
        stream.on('data', (text) => say(String(text)))
        stream.on('end', () => connection.end())
      })
    },
    stuck () { // a stream that is not read there holds back its writer, and nobody else
      open('stuck', 0, (stream) => {
        let written = 0
        const more = () => stream.write(Buffer.alloc(CHUNK), () => { written += CHUNK; more() })
        more()
        open('echo', 0, (other) => {
          drink(other, (size) => {
            say(size)
            connection.ping(() => { say(written < 4 << 20 ? 'held back' : 'not held back'); process.exit() })
          })
          pour(other, 8 << 20, () => {})
        })
      })
    },
    unread () { // a stream that we do not read holds back its writer, and nobody else
      open('source', 64 << 20, (stream) => {
        stream.pause()
        open('echo', 0, (other) => {
          drink(other, (size) => { say(size); process.exit() })
          pour(other, 8 << 20, () => {})
        })
      })
    },
    reset () {
      open('reset', 0, (stream) => stream.on('close', () => connection.end()))
    },
    abort () {
      open('aborted', 0, (stream) => { stream.write('x'); stream.on('response', () => stream.abort(() => connection.end())) })
    },
    ping () {
      connection.ping(() => { say('pong'); connection.end() })
    },
    goaway () {
      open('goaway', 0, (stream) => stream.resume().end())
    }
  }
  scenarios[scenario]()
}

if (process.argv[2] === 'serve') serve()
else client(Number(process.argv[2]), process.argv[3])
